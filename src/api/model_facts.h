// What the APIs tell of a model's file.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "api/fields.h"
#include "gguf/gguf.h"
#include "store/store.h"

namespace steelyard::api {

// Ollama's object "details".
Json details_json(std::string_view architecture, std::uint64_t parameters, std::string_view quantization);
Json details_json(const GgufFile& file);
Json details_json(const StoredModel& model);

// Metadata by key; arrays are null unless `verbose`. Numbers that JSON doesn't have (infinity, NaN) are null.
Json metadata_json(const GgufFile& file, bool verbose);

// "completion", "tools", "thinking": by the file's own chat template.
std::vector<std::string> capabilities(const GgufFile& file);

// "temperature 0.6\ntop_k 20": how the file wants its answers drawn, as a Modelfile's parameters; empty where
// it says nothing.
std::string parameters_text(const GgufFile& file);

}  // namespace steelyard::api
