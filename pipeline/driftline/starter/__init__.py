"""What `driftline init` writes.

- `layout`: the files of a new project, as a mapping of paths to bytes: nothing is written here.
- `places`: `--source` and `--adapter` as the locations params.yaml will have.
- `requirement`: how a project names driftline for pip: as pip itself noted where it was installed
  from.
- `shipped`: files of this repository that a new project gets a copy of, wherever driftline is
  installed.
- `writer`: writing a planned project: all of it, or, where something is in the way, nothing.
"""
