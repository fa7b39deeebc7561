"""Sections of params.yaml as typed values, a module each: a stage reads those it needs, no other.

- `decode`: how cells answer, greedily.
- `distributions`: what is kept of teacher-forced texts, and the corpora among them.
- `gguf`: the GGUF artifacts of every variant.
- `limits`: what a process may use; never part of what a cell is.
- `location`: where a checkpoint or an adapter comes from.
- `merge`: how adapters are merged.
- `mlx`: the MLX artifacts of every variant, and the recipes they are made by.
- `reading`: params.yaml as plain data, and one section of it.
- `runtimes`: which variants run in which runtime.
"""
