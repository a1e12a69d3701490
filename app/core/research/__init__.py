"""What deep research is made of, without databases and workers: prompts, sources, the report."""
