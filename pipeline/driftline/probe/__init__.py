"""What DVC cannot see: installed software, imported code, local folders.

- `closure`: the code of every stage: DVC does not follow imports, so the probe does it for DVC.
- `environment`: what a runtime's cells depend on that no file of the project shows: the installed
  software.
- `locations`: what a local source or adapter folder holds, without hashing an unchanged file
  twice.
"""
