"""What lies under `artifacts/`: digests, records and seals, headers of files, distributions.

- `digest`: identity of a tree of files, recomputable with coreutils.
- `distributions`: next-token distributions on disk: O(positions x K), written and read in chunks.
- `environments`: what was installed where something ran, as it lies beside what it made.
- `facts`: what is in an artifact, part by part: tensors, metadata, tokenizer, template, each with
  a digest.
- `gguf_header`: read what a GGUF file says of itself and its tensors, with bounded reads and no
  tensor loaded.
- `needs`: what a cell must have run, read and been asked for, and in what a record differs from
  that.
- `records`: records on disk: read with their seal checked, and what they describe checked against
  them.
- `safetensors_header`: read what a Safetensors file says of its tensors, without reading a tensor.
- `texts`: where teacher-forced texts and distributions (of cells and of counterfactuals) lie.
"""
