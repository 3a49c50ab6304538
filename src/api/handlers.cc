#include "api/handlers.h"

#include <algorithm>
#include <chrono>
#include <exception>
#include <new>
#include <nlohmann/json.hpp>
#include <span>
#include <vector>

#include "base/error.h"
#include "base/readable.h"
#include "base/units.h"
#include "engine/chat.h"
#include "engine/errors.h"
#include "engine/fit_chat.h"
#include "engine/loaded_model.h"
#include "engine/sampling_options.h"
#include "text/vocabulary.h"

namespace steelyard::api {
namespace {

using Json = nlohmann::ordered_json;

Reply json_reply(const Json& json) {
  return {.body = json.dump(-1, ' ', false, Json::error_handler_t::replace)};
}

Json openai_entry(const StoredModel& m) {
  return {{"id", m.name},
          {"object", "model"},
          {"created", std::chrono::system_clock::to_time_t(m.modified)},
          {"owned_by", "library"}};
}

void check_abilities(const LoadedModel& model, const ChatInput& input) {
  if (!model.chat_template()) return;
  const TemplateAbilities able = template_abilities(model.chat_template()->source());
  const std::string name = model.path().stem().string();
  if (input.think.value_or(false) && !able.thinking)
    throw_error(ErrorKind::bad_input, "\"{}\" does not support thinking", name);
  if (input.tools.is_array() && !able.tools)
    throw_error(ErrorKind::bad_input, "\"{}\" does not support tools", name);
}

// A prompt as the model's template wants it, after the conversation of `context` where there is one; a model
// without a template completes the text.
std::vector<TokenId> generate_prompt(const LoadedModel& model, const GenerateRequest& r) {
  if (r.raw || !model.chat_template()) {
    const bool system = r.system && !r.raw && r.context.empty();
    const std::string text = system ? *r.system + "\n\n" + r.prompt : r.prompt;
    return r.context.empty() ? model.encode_text(text, r.raw) : model.continue_text(text, r.context, r.raw);
  }
  ChatInput input;
  if (r.system && !r.system->empty()) input.messages.push_back({{"role", "system"}, {"content", *r.system}});
  input.messages.push_back({{"role", "user"}, {"content", r.prompt}});
  input.think = r.think;
  input.stop = r.stop_prompt;
  check_abilities(model, input);
  return r.context.empty() ? model.encode_chat(input) : model.continue_chat(input, r.context);
}

// Names as JSON strings, so that none writes a line of its own into the log.
std::string ignored_note(const Options& o) {
  constexpr std::size_t kMost = 8, kLongest = 40;
  std::string text;
  for (std::size_t i = 0; i < std::min(o.ignored.size(), kMost); ++i)
    text += (i ? ", " : "ignored options: ") +
            Json(o.ignored[i].substr(0, kLongest)).dump(-1, ' ', true, Json::error_handler_t::replace);
  return o.ignored.size() > kMost ? text + ", \u2026" : text;
}

// Member by member: in a braced list gcc 12 destroys default members twice when a later one throws.
Handled generation(std::unique_ptr<AnswerFormat> format, const CommonRequest& r,
                   const ModelManager::Lease& lease, std::vector<TokenId> prompt) {
  Handled h;
  h.format = std::move(format);
  h.model = lease.model;
  h.request.prompt = std::move(prompt);
  static_cast<AnswerOptions&>(h.request) = r.options.over(lease.model->answer_defaults());
  h.request.context = r.options.num_ctx;
  h.stream = r.stream;
  return h;
}

int hex_value(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

// "my%20model" → "my model"; what is no escape stays as it is.
std::string percent_decoded(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const int high = text[i] == '%' && i + 2 < text.size() ? hex_value(text[i + 1]) : -1;
    const int low = high < 0 ? -1 : hex_value(text[i + 2]);
    out += low < 0 ? text[i] : static_cast<char>(16 * high + low);
    if (low >= 0) i += 2;
  }
  return out;
}

Handled reply_only(Reply reply) {
  Handled h;
  h.reply = std::move(reply);
  return h;
}

// A path without its query and without a slash at the end.
std::string_view path_of(std::string_view target) {
  std::string_view path = target.substr(0, target.find('?'));
  while (path.size() > 1 && path.ends_with('/')) path.remove_suffix(1);
  return path;
}

Handled not_allowed(Dialect dialect, std::string_view path, std::string_view allow) {
  Reply reply = error_reply(dialect, 405u, fmt::format("{} takes {} only", path, allow));
  reply.allow = allow;
  return reply_only(std::move(reply));
}

// Paths that clients know, and what to do until they are built.
struct Unbuilt {
  std::string_view path, instead;
};
constexpr std::string_view kStoreByHand =
    "put GGUF files into the store by hand; `steelyard list` says what is there";
constexpr std::string_view kUseChat = "use POST /v1/chat/completions";
constexpr std::string_view kNoEmbeddings = "embeddings can't be computed";
constexpr Unbuilt kUnbuilt[] = {
    {"/api/show", "`steelyard show MODEL` tells it on the command line"},
    {"/api/ps", "the server's log says what is loaded"},
    {"/api/pull", kStoreByHand},
    {"/api/push", kStoreByHand},
    {"/api/create", kStoreByHand},
    {"/api/copy", kStoreByHand},
    {"/api/delete", kStoreByHand},
    {"/api/blobs", kStoreByHand},
    {"/api/embed", kNoEmbeddings},
    {"/api/embeddings", kNoEmbeddings},
    {"/v1/embeddings", kNoEmbeddings},
    {"/v1/completions", "use POST /api/generate with \"raw\": true"},
    {"/v1/responses", kUseChat},
    {"/v1/messages", kUseChat},
};

Reply no_such_path(std::string_view path) {
  const std::string shown = readable(path, 100);
  for (const Unbuilt& u : kUnbuilt)
    if (path == u.path || (path.starts_with(u.path) && path[u.path.size()] == '/'))
      return error_reply(dialect_of(path), 404u, fmt::format("{} isn't built yet: {}", shown, u.instead));
  return error_reply(dialect_of(path), 404u, fmt::format("there is no {} here", shown));
}

// A stage that needs the model; `make` may throw.
template <typename Asked, typename Make>
Handled when_loaded(Dialect dialect, const std::shared_ptr<const Asked>& r, Make make) {
  Handled h;
  h.wish = ModelWish{r->model, r->keep_alive, r->options.num_ctx};
  h.model_name = r->model;
  h.note = ignored_note(r->options);
  h.with_model = [dialect, r, make](const ModelManager::Lease& lease) {
    try {
      return make(*r, lease);
    } catch (...) {
      return reply_only(reply_for(dialect, std::current_exception()));
    }
  };
  return h;
}

AnswerFacts facts_of(const CommonRequest& r, const ModelManager::Lease& lease) {
  AnswerFacts facts;
  facts.model = r.model;
  facts.load_ns = lease.load_ns;
  return facts;
}

Handled prepare_generate(const GenerateRequest& r, const ModelManager::Lease& lease) {
  std::vector<TokenId> prompt = generate_prompt(*lease.model, r);
  AnswerFacts facts = facts_of(r, lease);
  if (!r.raw) facts.prompt = prompt;
  return generation(generate_format(std::move(facts)), r, lease, std::move(prompt));
}

// The conversation's prompt, without its oldest turns where it doesn't fit and the request says so.
std::vector<TokenId> chat_prompt(const ChatRequest& r, const LoadedModel& model, AnswerFacts& facts) {
  check_abilities(model, r.input);
  if (!r.truncate) return model.encode_chat(r.input);
  const std::size_t context = r.options.num_ctx ? r.options.num_ctx : model.engine().context();
  FittedChat fitted =
      model.fit_chat(r.input, answer_reserve(r.options.num_predict, context), r.options.num_ctx);
  facts.dropped_messages = fitted.dropped_messages;
  return std::move(fitted.prompt);
}

Handled prepare_chat(const ChatRequest& r, const ModelManager::Lease& lease) {
  AnswerFacts facts = facts_of(r, lease);
  std::vector<TokenId> prompt = chat_prompt(r, *lease.model, facts);
  return generation(chat_format(std::move(facts)), r, lease, std::move(prompt));
}

Handled prepare_openai_chat(const OpenAiChatRequest& r, const ModelManager::Lease& lease) {
  AnswerFacts facts = facts_of(r, lease);
  std::vector<TokenId> prompt = chat_prompt(r, *lease.model, facts);
  return generation(openai_format(std::move(facts), r.include_usage), r, lease, std::move(prompt));
}

}  // namespace

Dialect dialect_of(std::string_view target) {
  return target.starts_with("/v1/") ? Dialect::openai : Dialect::native;
}

Reply reply_for(Dialect dialect, const std::exception_ptr& error) {
  try {
    std::rethrow_exception(error);
  } catch (const TooLong& e) {
    return too_long_reply(dialect, e.what());
  } catch (const Error& e) {
    return error_reply(dialect, e.kind(), e.what());
  } catch (const std::bad_alloc&) {
    return error_reply(dialect, ErrorKind::busy,
                       "there isn't enough memory for this request now: try again later");
  } catch (const std::exception& e) {
    return error_reply(dialect, ErrorKind::internal, e.what());
  }
}

std::span<const Handlers::Route> Handlers::routes() {
  static constexpr Route kRoutes[] = {
      {"GET", "/", Lane::at_once, &Handlers::heartbeat},
      {"GET", "/api/version", Lane::at_once, &Handlers::version},
      {"GET", "/api/tags", Lane::quick, &Handlers::tags},
      {"POST", "/api/generate", Lane::work, &Handlers::generate},
      {"POST", "/api/chat", Lane::work, &Handlers::chat},
      {"GET", "/v1/models", Lane::quick, &Handlers::openai_models},
      {"GET", "/v1/models/", Lane::quick, &Handlers::openai_model},
      {"POST", "/v1/chat/completions", Lane::work, &Handlers::openai_chat},
  };
  return kRoutes;
}

const Handlers::Route* Handlers::find_route(std::string_view path) {
  for (const Route& r : routes()) {
    const bool prefix = r.path.size() > 1 && r.path.ends_with('/');
    if (prefix ? path.starts_with(r.path) : path == r.path) return &r;
  }
  return nullptr;
}

Lane Handlers::lane(std::string_view target) const {
  const Route* route = find_route(path_of(target));
  return route ? route->lane : Lane::at_once;
}

Handled Handlers::handle(const HttpRequest& request) const {
  const std::string_view path = path_of(request.target);
  const Dialect dialect = dialect_of(path);
  const Route* route = find_route(path);
  if (!route) return reply_only(no_such_path(path));
  const bool head = request.method == "HEAD" && route->method == "GET";
  if (request.method != route->method && !head)
    return not_allowed(dialect, path, route->method == "GET" ? "GET, HEAD" : route->method);
  try {
    return (this->*route->handler)(
        {request.body, path.substr(std::min(path.size(), route->path.size())), request.stop});
  } catch (...) {
    return reply_only(reply_for(dialect, std::current_exception()));
  }
}

Handled Handlers::heartbeat(const Call&) const {
  return reply_only({.body = "Ollama is running", .content_type = "text/plain; charset=utf-8"});
}

Handled Handlers::version(const Call&) const { return reply_only(json_reply({{"version", version_}})); }

// What an empty prompt means: load the model, or with keep_alive 0 unload it.
Handled Handlers::load_or_unload(const CommonRequest& request, bool chat) const {
  if (request.keep_alive == KeepAlive::zero()) {
    models_.unload(request.model);
    return reply_only(loaded_reply(request.model, chat, "unload", 0));
  }
  return when_loaded(Dialect::native, std::make_shared<const CommonRequest>(request),
                     [chat](const CommonRequest& r, const ModelManager::Lease& lease) {
                       return reply_only(loaded_reply(r.model, chat, "load", lease.load_ns));
                     });
}

Handled Handlers::generate(const Call& call) const {
  GenerateRequest parsed = parse_generate(call.body);
  parsed.stop_prompt = call.stop;
  const auto r = std::make_shared<const GenerateRequest>(std::move(parsed));
  if (r->prompt.empty() && r->context.empty()) return load_or_unload(*r, false);
  return when_loaded(Dialect::native, r, prepare_generate);
}

Handled Handlers::chat(const Call& call) const {
  ChatRequest parsed = parse_chat(call.body);
  parsed.input.stop = call.stop;
  const auto r = std::make_shared<const ChatRequest>(std::move(parsed));
  if (r->input.messages.empty()) return load_or_unload(*r, true);
  return when_loaded(Dialect::native, r, prepare_chat);
}

Handled Handlers::openai_chat(const Call& call) const {
  OpenAiChatRequest parsed = parse_openai_chat(call.body);
  parsed.input.stop = call.stop;
  const auto r = std::make_shared<const OpenAiChatRequest>(std::move(parsed));
  return when_loaded(Dialect::openai, r, prepare_openai_chat);
}

Handled Handlers::tags(const Call&) const {
  Json list = Json::array();
  for (const StoredModel& m : left_out_.without(store_.list())) {
    list.push_back({{"name", m.name},
                    {"model", m.name},
                    {"modified_at", rfc3339(m.modified)},
                    {"size", m.bytes},
                    {"digest", m.digest},
                    {"details",
                     {{"format", "gguf"},
                      {"family", m.architecture},
                      {"families", {m.architecture}},
                      {"parameter_size", count_text(m.parameters)},
                      {"quantization_level", m.quantization}}}});
  }
  return reply_only(json_reply({{"models", list}}));
}

Handled Handlers::openai_models(const Call&) const {
  Json list = Json::array();
  for (const StoredModel& m : left_out_.without(store_.list())) list.push_back(openai_entry(m));
  return reply_only(json_reply({{"object", "list"}, {"data", list}}));
}

Handled Handlers::openai_model(const Call& call) const {
  return reply_only(json_reply(openai_entry(store_.find(percent_decoded(call.rest)))));
}

}  // namespace steelyard::api
