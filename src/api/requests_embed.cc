// Requests for embeddings, in three forms.
#include "api/request_parts.h"
#include "api/requests.h"
#include "base/error.h"

namespace steelyard::api {
namespace {

// A text, texts, token ids or lists of them.
void read_inputs(EmbedRequest& r, const Fields& f, const char* key, bool ids) {
  const Json* v = f.find(key);
  if (!v) return;
  const bool lists = v->is_array() && !v->empty() && !v->front().is_string();
  if (lists && !ids) f.wrong(key, "a string or a list of strings");
  if (!lists) {
    r.texts = f.texts(key);
  } else if (v->front().is_array()) {
    for (const Json& list : *v) r.ids.push_back(token_ids(f, key, list));
  } else {
    r.ids.push_back(token_ids(f, key, *v));
  }
  if (r.texts.size() + r.ids.size() > kMostInputs)
    throw_error(ErrorKind::bad_input, "\"{}\" may hold {} texts at most", key, kMostInputs);
}

void read_dimensions(EmbedRequest& r, const Fields& f) {
  r.dimensions = static_cast<std::uint32_t>(f.integer("dimensions", 1, kInt32).value_or(0));
}

}  // namespace

EmbedRequest parse_embed(std::string_view body) {
  const Json json = parse_object(body);
  const Fields f(json);
  EmbedRequest r;
  r.model = read_model(f);
  r.stream = false;
  r.keep_alive = read_keep_alive(f);
  r.options = read_options(json);
  r.truncate = f.flag("truncate").value_or(false);
  read_inputs(r, f, "input", false);
  read_dimensions(r, f);
  return r;
}

EmbedRequest parse_embeddings(std::string_view body) {
  const Json json = parse_object(body);
  const Fields f(json);
  EmbedRequest r;
  r.model = read_model(f);
  r.stream = r.normalise = false;
  r.keep_alive = read_keep_alive(f);
  r.options = read_options(json);
  if (auto prompt = f.text("prompt"); prompt && !prompt->empty()) r.texts.push_back(std::move(*prompt));
  return r;
}

EmbedRequest parse_openai_embeddings(std::string_view body) {
  const Json json = parse_object(body);
  const Fields f(json);
  EmbedRequest r;
  r.model = read_model(f);
  r.stream = false;
  r.keep_alive = read_keep_alive(f);
  r.truncate = f.flag("truncate").value_or(false);
  read_inputs(r, f, "input", true);
  if (r.texts.empty() && r.ids.empty()) throw_error(ErrorKind::bad_input, "\"input\" is missing or empty");
  read_dimensions(r, f);
  const std::string format = f.text("encoding_format").value_or("float");
  if (format != "float" && format != "base64") f.wrong("encoding_format", "\"float\" or \"base64\"");
  r.base64 = format == "base64";
  return r;
}

}  // namespace steelyard::api
