"""Records of runs, and what is made of them: docs/benchmarks.md, the README's section, charts."""
