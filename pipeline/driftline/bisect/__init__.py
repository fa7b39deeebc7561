"""Bisect: which of the inputs that changed between two commits did it.

- `answer`: runs mixes of both commits' inputs, measures each, and names who is guilty.
- `mixing`: the inputs that differ as groups, and params.yaml mixed of two; pure.
- `moved`: the verdicts and hops that moved between two commits; pure.
- `question`: what has to be found out, before anything is run.
- `search`: finds the guilty groups by swapping them, in as few runs as it can; pure.
- `worktree`: a git worktree that has a mix of two commits, and `dvc repro` in it.
"""
