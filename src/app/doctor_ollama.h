// `steelyard doctor --ollama URL`: a running server that speaks Ollama's API, asked and timed.
#pragma once

#include <string>

#include "doctor/facts.h"

namespace steelyard {

// Asks which model is loaded (or takes `model`), generates some 64 tokens twice, and, where the server is on
// this machine, looks at the GPUs meanwhile. Throws Error: io when nobody answers, not_found when no model is
// loaded and none was named, else what the server says.
doctor::Facts ask_ollama(const std::string& url, const std::string& model);

}  // namespace steelyard
