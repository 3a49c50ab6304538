// Requests for embeddings, in three forms.
#include "api/request_parts.h"
#include "api/requests.h"
#include "base/error.h"

namespace steelyard::api {
namespace {

void read_inputs(EmbedRequest& r, const Fields& f, const char* key, bool ids) {
  const Json* v = f.find(key);
  if (!ids && v && v->is_array() && !v->empty() && !v->front().is_string())
    f.wrong(key, "a string or a list of strings");
  read_texts(f, key, r.texts, r.ids);
  if (r.texts.size() + r.ids.size() > kMostInputs)
    throw_error(ErrorKind::bad_input, "\"{}\" may hold {} texts at most", key, kMostInputs);
}

// Never streamed.
EmbedRequest read_embed(const Fields& f) {
  EmbedRequest r;
  r.model = read_model(f);
  r.stream = false;
  r.keep_alive = read_keep_alive(f);
  return r;
}

void read_dimensions(EmbedRequest& r, const Fields& f) {
  r.dimensions = static_cast<std::uint32_t>(f.integer("dimensions", 1, kInt32).value_or(0));
}

}  // namespace

EmbedRequest parse_embed(std::string_view body) {
  const Json json = parse_object(body);
  const Fields f(json);
  EmbedRequest r = read_embed(f);
  r.options = read_options(json);
  r.truncate = f.flag("truncate").value_or(false);
  read_inputs(r, f, "input", false);
  read_dimensions(r, f);
  return r;
}

EmbedRequest parse_embeddings(std::string_view body) {
  const Json json = parse_object(body);
  const Fields f(json);
  EmbedRequest r = read_embed(f);
  r.normalise = false;
  r.options = read_options(json);
  if (auto prompt = f.text("prompt"); prompt && !prompt->empty()) r.texts.push_back(std::move(*prompt));
  return r;
}

EmbedRequest parse_openai_embeddings(std::string_view body) {
  const Json json = parse_object(body);
  const Fields f(json);
  EmbedRequest r = read_embed(f);
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
