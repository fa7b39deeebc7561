"""Runtimes: one contract, one module each, and the child process they run in.

- `base`: the runtime contract: what a new back end has to be, on one page.
- `cell`: score one cell in child processes, and turn whatever happens to them into a `CellRecord`.
- `collect`: what two forced passes left on disk, as records: digests, and the first against the
  second.
- `forced`: the teacher-forced pass: a text through `Runtime.force`, reduced row by row.
- `llamacpp`: llama.cpp, through llama-cpp-python: the GGUF's own template, tokenizer and end
  tokens.
- `mlx`: MLX, through mlx-lm: the artifact's own tokenizer and template, mlx-lm's own decoding
  loop.
- `registry`: from the name of a runtime's class to the class, and to the Python that runs it.
- `sandbox`: what a worker process may do: no network, no secrets, bounded memory, gone with its
  parent.
- `stepwise`: the greedy loop shared by runtimes that can be driven one token at a time.
- `tokenizer`: the text path of runtimes whose tokenizer is a Transformers one.
- `transformers`: Transformers: float32 on CPU, batch 1, eager attention. The reference every hop
  starts from.
- `vllm`: vLLM on CPU: float32, one sequence at a time, nothing compiled or cached between prompts.
- `worker`: the child process of one turn of a cell: load, answer every prompt, force every text.
"""
