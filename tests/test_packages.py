"""What is installed fits together: peft beside torchao, of which torchtune needs an older one than peft wants."""

import subprocess
import sys


def test_no_package_lacks_another_or_has_one_of_the_wrong_version():
    checked = subprocess.run([sys.executable, "-m", "pip", "check"], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout
