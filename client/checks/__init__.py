"""What can be wrong with a run's values, found before anything is sent, by the checks of the steps themselves."""
