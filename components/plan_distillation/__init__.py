"""Plans a training of which a second model is the teacher."""
