"""Look at one page, in a process of its own: ``python -m benchmarks.viewers.looking TASK``."""

import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.viewers.browser import Page, chromium, look_at


def main(task: dict[str, Any]) -> None:
    """Look at one page, and print what was measured."""
    files = {name: Path(path) for name, path in task["files"].items()}
    try:
        with chromium() as browser:
            found = look_at(browser, task["address"], Page(task["ready"], task["area"]), files, task["limit"])
    except Exception as error:  # a page that Chromium gives up is a row
        found = {"ended": str(error).strip().splitlines()[0][:120]}
    print(json.dumps(found))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
