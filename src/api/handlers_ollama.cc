// Ollama's paths.
#include <memory>
#include <utility>
#include <vector>

#include "api/handler_parts.h"
#include "api/model_facts.h"
#include "api/routes.h"
#include "api/stored_defaults.h"
#include "base/units.h"
#include "engine/chat.h"
#include "engine/loaded_model.h"
#include "engine/model_manager.h"
#include "store/store.h"
#include "text/vocabulary.h"

namespace steelyard::api {
namespace {

constexpr std::string_view kOllamaVersion = "0.35.1";  // whose API this one follows

Handled heartbeat(const Services&, const Call&) {
  return reply_only({.body = "Ollama is running", .content_type = "text/plain; charset=utf-8"});
}

// Clients compare the version with Ollama's to know what the API can.
Handled version(const Services& s, const Call&) {
  return reply_only(json_reply({{"version", kOllamaVersion}, {"steelyard", s.version}}));
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
  for (const Json& message : r.before) input.messages.push_back(message);
  input.messages.push_back({{"role", "user"}, {"content", r.prompt}});
  input.think = r.think;
  input.stop = r.stop_prompt;
  check_abilities(model, input);
  return r.context.empty() ? model.encode_chat(input) : model.continue_chat(input, r.context);
}

Handled prepare_generate(const GenerateRequest& r, const ModelManager::Lease& lease) {
  std::vector<TokenId> prompt = generate_prompt(*lease.model, r);
  AnswerFacts facts = facts_of(r, lease);
  if (!r.raw) facts.prompt = prompt;
  if (!r.raw && lease.model->chat_template()) facts.syntax = syntax_of(*lease.model, {}, prompt);
  return generation(generate_format(std::move(facts)), r, lease, std::move(prompt));
}

Handled prepare_chat(const ChatRequest& r, const ModelManager::Lease& lease) {
  AnswerFacts facts = facts_of(r, lease);
  std::vector<TokenId> prompt = chat_prompt(r, *lease.model, facts);
  return generation(chat_format(std::move(facts)), r, lease, std::move(prompt));
}

// What an empty prompt means: load the model, or with keep_alive 0 unload it.
Handled load_or_unload(const Services& s, const CommonRequest& request, bool chat) {
  if (request.keep_alive == KeepAlive::zero()) {
    s.models.unload(request.model);
    return reply_only(loaded_reply(request.model, chat, "unload", 0));
  }
  return when_loaded(Dialect::native, std::make_shared<const CommonRequest>(request),
                     [chat](const CommonRequest& r, const ModelManager::Lease& lease) {
                       return reply_only(loaded_reply(r.model, chat, "load", lease.load_ns));
                     });
}

Handled generate(const Services& s, const Call& call) {
  GenerateRequest parsed = parse_generate(call.body);
  parsed.stop_prompt = call.stop;
  add_defaults(s, parsed);
  const auto r = std::make_shared<const GenerateRequest>(std::move(parsed));
  if (r->prompt.empty() && r->context.empty()) return load_or_unload(s, *r, false);
  return when_loaded(Dialect::native, r, prepare_generate);
}

Handled chat(const Services& s, const Call& call) {
  ChatRequest parsed = parse_chat(call.body);
  parsed.input.stop = call.stop;
  add_defaults(s, parsed);
  const auto r = std::make_shared<const ChatRequest>(std::move(parsed));
  if (r->input.messages.empty()) return load_or_unload(s, *r, true);
  return when_loaded(Dialect::native, r, prepare_chat);
}

Handled tags(const Services& s, const Call&) {
  Json list = Json::array();
  for (const StoredModel& m : s.left_out.without(s.store.list())) {
    list.push_back({{"name", m.name},
                    {"model", m.name},
                    {"modified_at", rfc3339(m.modified)},
                    {"size", m.bytes},
                    {"digest", m.digest},
                    {"details", details_json(m)}});
  }
  return reply_only(json_reply({{"models", list}}));
}

}  // namespace

std::span<const Route> ollama_routes() {
  static constexpr Route kRoutes[] = {
      {"GET", "/", Lane::at_once, heartbeat, Need::nothing},
      {"GET", "/api/version", Lane::at_once, version},
      {"GET", "/api/tags", Lane::quick, tags},
      {"POST", "/api/generate", Lane::work, generate},
      {"POST", "/api/chat", Lane::work, chat},
  };
  return kRoutes;
}

}  // namespace steelyard::api
