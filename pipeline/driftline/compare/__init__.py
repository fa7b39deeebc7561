"""Compare: what differs between two commits of evidence, and what explains it.

- `checkpoints`: which parts of a checkpoint or adapter differ, down to tensors and fields; pure.
- `comparison`: two commits against each other: inputs, consequences, cells, hops; pure.
- `given`: what people write: params.yaml, golden prompts, corpora; pure.
- `hop`: one hop then and now, over the same token ids; pure.
- `inputs`: which inputs of a run differ, and what they explain; pure.
- `kinds`: what a run can be given, by kind, in the order of reports; pure.
- `sameness`: what makes two cells run the same model; pure.
- `sides`: one input before and after, and how it is shown; pure.
- `software`: which software, machine and code of driftline differ; pure.
"""
