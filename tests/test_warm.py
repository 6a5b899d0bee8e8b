"""A warm process is a process of its own, which finds attnprobe where it is told to and is asked nothing twice."""

import os
from pathlib import Path

import pytest
import warm

ROOT = Path(__file__).parents[1]


def test_it_has_its_own_directory_environment_and_output(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(
        "import os, sys\n"
        "before = sorted({name.partition('.')[0] for name in sys.modules} & {'attnprobe', 'torch', 'transformers'})\n"
        "import attnprobe\n"
        "print(*before, attnprobe.__file__, os.getcwd(), *sys.argv[1:], os.environ.get('ONE'), os.environ.get('TWO'))\n"
        "print('and', sys.stdin.read(), __name__, file=sys.stderr)\n"
        "sys.exit(3)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "ONE": "1"}
    for _ in range(2):
        done = warm.python([str(tmp_path / "program.py"), "-x"], tmp_path, environment, tmp_path)
        here = str(ROOT / "attnprobe" / "__init__.py")
        assert done.stdout.split() == ["torch", "transformers", here, str(tmp_path), "-x", "1", "None"]
        assert (done.returncode, done.stderr) == (3, "and  __main__\n")
    assert Path.cwd() != tmp_path and "ONE" not in os.environ


def test_an_error_is_told_and_one_that_hangs_is_ended(tmp_path: Path) -> None:
    done = warm.python(["-m", "attnprobe.cli", "nothing"], tmp_path, {"PYTHONPATH": str(ROOT)}, tmp_path)
    assert done.returncode == 2 and "No such command 'nothing'" in done.stderr
    (tmp_path / "raises.py").write_text("print(1)\n1 / 0\n")
    done = warm.python([str(tmp_path / "raises.py")], tmp_path, {}, tmp_path)
    assert (done.returncode, done.stdout) == (1, "1\n") and "ZeroDivisionError" in done.stderr
    (tmp_path / "hangs.py").write_text("import time\ntime.sleep(60)\n")
    with pytest.raises(TimeoutError, match="took more than"):
        warm.python([str(tmp_path / "hangs.py")], tmp_path, {}, tmp_path, timeout=0.5)
