"""What a project is: params.yaml typed, the one table of what exists, and what follows from both.

- `graph`: the graph of cells: which two are one step apart, and what that step is; pure.
- `params`: `params.yaml` as a typed value: every error names the key, expected and found.
- `plan`: what a project scores: every cell that follows from params.yaml and the table of routes,
  pure.
- `routes`: what exists, said once: formats, the conversions that make artifacts, the runtimes that
  run them.
- `sections`: sections of params.yaml as typed values, a module each: a stage reads those it needs,
  no other.
- `tasks`: what a cell's processes are told: everything of the project that shapes the cell, and no
  more.
"""
