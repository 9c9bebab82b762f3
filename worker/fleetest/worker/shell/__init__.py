"""`fleetest shell`: the environment of a task, made again on the machine where that is typed."""
