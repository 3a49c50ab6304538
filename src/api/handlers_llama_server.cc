// llama-server's paths, and the metrics. That server holds one model; here "model", in the body or after '?',
// says which, and without it the one that is loaded, or the only one there is.
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "api/handler_parts.h"
#include "api/request_parts.h"
#include "api/routes.h"
#include "base/error.h"
#include "engine/chat.h"
#include "engine/engine.h"
#include "engine/loaded_model.h"
#include "engine/model_manager.h"
#include "engine/sampling_options.h"
#include "store/store.h"
#include "text/tokenizer.h"
#include "text/vocabulary.h"

namespace steelyard::api {
namespace {

std::string query_value(std::string_view query, std::string_view key) {
  while (!query.empty()) {
    const std::string_view pair = query.substr(0, query.find('&'));
    query.remove_prefix(std::min(query.size(), pair.size() + 1));
    if (pair.size() > key.size() && pair.starts_with(key) && pair[key.size()] == '=')
      return percent_decoded(pair.substr(key.size() + 1));
  }
  return {};
}

std::string model_or_only(const Services& s, std::string name) {
  if (!name.empty()) return name;
  const auto loaded = s.models.loaded();
  if (loaded.size() == 1) return loaded.front().name;
  const auto all = s.store.list();
  if (loaded.empty() && all.size() == 1) return all.front().name;
  throw_error(ErrorKind::bad_input, "there are several models: say which with \"model\"");
}

struct TextRequest : CommonRequest {
  std::string content;
  bool add_special = false, parse_special = true, with_pieces = false;
  std::vector<TokenId> tokens;
  ChatInput input;
};

TextRequest text_request(const Services& s, const Call& call, const Fields& f) {
  TextRequest r;
  r.model = model_or_only(s, f.text("model").value_or(query_value(call.query, "model")));
  r.keep_alive = read_keep_alive(f);
  return r;
}

template <typename Make>
Handled with_model(TextRequest r, Make make) {
  return when_loaded(Dialect::openai, std::make_shared<const TextRequest>(std::move(r)), make);
}

Handled tokenize(const Services& s, const Call& call) {
  const Json json = parse_object(call.body);
  const Fields f(json);
  TextRequest r = text_request(s, call, f);
  r.content = f.text("content").value_or("");
  r.add_special = f.flag("add_special").value_or(false);
  r.parse_special = f.flag("parse_special").value_or(true);
  r.with_pieces = f.flag("with_pieces").value_or(false);
  return with_model(std::move(r), [](const TextRequest& q, const ModelManager::Lease& lease) {
    const Tokenizer& tokenizer = lease.model->tokenizer();
    Json tokens = Json::array();
    for (const TokenId id :
         tokenizer.encode(q.content, {.add_special = q.add_special, .parse_special = q.parse_special}))
      tokens.push_back(q.with_pieces ? Json{{"id", id}, {"piece", tokenizer.piece(id, true)}} : Json(id));
    return reply_only(json_reply({{"tokens", std::move(tokens)}}));
  });
}

Handled detokenize(const Services& s, const Call& call) {
  const Json json = parse_object(call.body);
  const Fields f(json);
  TextRequest r = text_request(s, call, f);
  if (const Json* tokens = f.find("tokens")) r.tokens = token_ids(f, "tokens", *tokens);
  return with_model(std::move(r), [](const TextRequest& q, const ModelManager::Lease& lease) {
    return reply_only(json_reply({{"content", lease.model->tokenizer().decode(q.tokens, true)}}));
  });
}

Handled apply_template(const Services& s, const Call& call) {
  const Json json = parse_object(call.body);
  const Fields f(json);
  TextRequest r = text_request(s, call, f);
  r.input.messages = read_messages(json);
  if (r.input.messages.empty()) throw_error(ErrorKind::bad_input, "\"messages\" is missing or empty");
  r.input.tools = read_tools(f);
  r.input.stop = call.stop;
  return with_model(std::move(r), [](const TextRequest& q, const ModelManager::Lease& lease) {
    const LoadedModel& model = *lease.model;
    check_abilities(model, q.input);
    model.encode_chat(q.input);  // says what is wrong: no template, a conversation that is too long
    return reply_only(json_reply(
        {{"prompt", render_chat(*model.chat_template(), q.input, model.tokenizer().vocabulary())}}));
  });
}

// Healthy as long as every model that is loaded can answer.
Handled health(const Services& s, const Call&) {
  for (const ModelManager::Entry& m : s.models.loaded())
    if (m.model->device_lost())
      return reply_only(
          error_reply(Dialect::openai, 503u, m.name + " has lost its device: restart the server"));
  return reply_only(json_reply({{"status", "ok"}}));
}

// The model that `?model=` names among the loaded ones, or the only one; null: there is none.
std::shared_ptr<const LoadedModel> loaded_model(const Services& s, const Call& call, std::string& name) {
  const std::string wanted = query_value(call.query, "model");
  const auto loaded = s.models.loaded();
  for (const ModelManager::Entry& m : loaded)
    if (wanted.empty() ? loaded.size() == 1 : m.name == wanted) return name = m.name, m.model;
  return nullptr;
}

Handled props(const Services& s, const Call& call) {
  std::string name;
  const auto model = loaded_model(s, call, name);
  const ModelOptions& options = model ? model->options() : s.models.options();
  const AnswerOptions answers = model ? model->answer_defaults() : AnswerOptions();
  Json params = Json::object();
  for (const NumberOption& o : number_options()) params[std::string(o.name)] = o.of(answers);
  Json j = {{"default_generation_settings",
             {{"n_ctx", model ? model->engine().context() : options.context}, {"params", params}}},
            {"total_slots", options.slots},
            {"model_alias", name},
            {"model_path", name},  // a name: where files lie is nobody's business
            {"modalities", {{"vision", false}, {"audio", false}}},
            {"build_info", std::string("steelyard ") + std::string(s.version)}};
  if (model && model->chat_template()) j["chat_template"] = model->chat_template()->source();
  return reply_only(json_reply(j));
}

Handled slots(const Services& s, const Call&) {
  Json list = Json::array();
  for (const ModelManager::Entry& m : s.models.loaded()) {
    const EngineStats stats = m.model->engine().stats();
    for (std::uint32_t i = 0; i < stats.slots; ++i)
      list.push_back({{"id", i},
                      {"model", m.name},
                      {"n_ctx", m.model->engine().context()},
                      {"is_processing", i < stats.active}});
  }
  return reply_only(json_reply(list));
}

Handled metrics(const Services& s, const Call&) {
  return reply_only({.body = s.metrics.text(s.models, s.version),
                     .content_type = "text/plain; version=0.0.4; charset=utf-8"});
}

Handled metrics_history(const Services& s, const Call&) {
  return reply_only({.body = s.metrics.history(), .content_type = "application/json"});
}

}  // namespace

std::span<const Route> llama_server_routes() {
  static constexpr Route kRoutes[] = {
      {"GET", "/health", Lane::quick, health, Need::nothing},
      {"GET", "/v1/health", Lane::quick, health, Need::nothing},
      {"GET", "/props", Lane::quick, props},
      {"GET", "/slots", Lane::quick, slots},
      {"GET", "/metrics", Lane::quick, metrics},
      {"GET", "/metrics/history", Lane::quick, metrics_history},
      {"POST", "/tokenize", Lane::work, tokenize},
      {"POST", "/detokenize", Lane::work, detokenize},
      {"POST", "/apply-template", Lane::work, apply_template},
  };
  return kRoutes;
}

}  // namespace steelyard::api
