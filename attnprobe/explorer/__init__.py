"""What the explorer's front end asks of runs, answered; attnprobe/show/static/README.md lists the questions."""
