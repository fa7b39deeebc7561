"""The commands: parse, one call, print.

- `bisect`: `driftline bisect`.
- `check`: checks before any work: cheap, nothing is loaded into a runtime, nothing is written.
- `common`: what every command of `driftline` shares.
- `compare`: `driftline compare` and `driftline same`.
- `gate`: `driftline gate` and `driftline bless`.
- `import_cells`: `driftline import-cells`.
- `init`: `driftline init`.
- `only`: `driftline run --only`: this machine makes cells for a project that lives on another.
- `release`: `driftline release`.
- `show`: `driftline show`.
- `verify`: `driftline verify`.
"""
