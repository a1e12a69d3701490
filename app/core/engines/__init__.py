"""Engine clients: our side of the wire to TGI, vLLM, SGLang, llama.cpp and Ollama."""
