"""Planted faults: proof that drift blames the hop and component at fault, and nothing else.

- `bench`: plants one fault at a time, runs pipelines without any, and says what was blamed.
- `catalogue`: every fault, where it is planted, and the component that has to be blamed.
- `recipe`: the little project of a pipeline, as its `params.yaml` would have it.
- `runs`: that project run in one process, whole or with something tampered with.
- `edits`: changes one thing in the files of a healthy artifact.
- `runtimes`: runtimes that break one promise of their contract.
- `formats`: stored formats whose loader breaks one promise of theirs.
- `show`: the bench on a terminal.
"""
