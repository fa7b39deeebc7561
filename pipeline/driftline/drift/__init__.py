"""Drift and its cause, computed from evidence alone: no model is run, no file written.

- `evidence`: what one scored cell left behind, as drift reads it.
- `analysis`: everything drift finds in a project, hop by hop and cell by cell.
- `hops`: two neighbouring cells, answer by answer.
- `split`: the distributions of a hop, end to end and in their parts.
- `statistics`: every figure, with its formula, its source and its uncertainty.
- `text`: a runtime's own prompt against the pinned one, and how answers end.
- `cause`: why two answers part at a token: text, stored weights or arithmetic.
- `blame`: which hop changed an answer first.
- `findings`: silent failures, whether or not they cost an answer.
- `summary`: one sentence per hop that a reviewer understands.
"""
