// OpenAI's paths.
#include <chrono>
#include <memory>
#include <utility>
#include <vector>

#include "api/handler_parts.h"
#include "api/routes.h"
#include "api/stored_defaults.h"
#include "engine/model_manager.h"
#include "store/store.h"
#include "text/vocabulary.h"

namespace steelyard::api {
namespace {

Json openai_entry(const StoredModel& m) {
  return {{"id", m.name},
          {"object", "model"},
          {"created", std::chrono::system_clock::to_time_t(m.modified)},
          {"owned_by", "library"}};
}

Handled prepare_openai_chat(const OpenAiChatRequest& r, const ModelManager::Lease& lease) {
  AnswerFacts facts = facts_of(r, lease);
  std::vector<TokenId> prompt = chat_prompt(r, *lease.model, facts);
  return generation(openai_format(std::move(facts), {r.include_usage, r.choices, {}}), r, lease,
                    std::move(prompt));
}

Handled openai_chat(const Services& s, const Call& call) {
  OpenAiChatRequest parsed = parse_openai_chat(call.body);
  parsed.input.stop = call.stop;
  add_defaults(s, parsed);
  const auto r = std::make_shared<const OpenAiChatRequest>(std::move(parsed));
  return when_loaded(Dialect::openai, r, prepare_openai_chat);
}

Handled prepare_completion(const CompletionRequest& r, const ModelManager::Lease& lease) {
  OpenAiFacts openai{r.include_usage, r.choices, {}};
  std::vector<std::vector<TokenId>> prompts = r.prompt_ids;
  for (const std::string& text : r.prompts) prompts.push_back(lease.model->encode_text(text, true));
  if (r.echo) openai.echo = r.prompts;
  if (r.echo && r.prompts.empty())
    for (const auto& ids : prompts) openai.echo.push_back(lease.model->tokenizer().decode(ids));
  return generation(completion_format(facts_of(r, lease), std::move(openai)), r, lease, std::move(prompts));
}

Handled completion(const Services& s, const Call& call) {
  CompletionRequest parsed = parse_completion(call.body);
  add_defaults(s, parsed);
  return when_loaded(Dialect::openai, std::make_shared<const CompletionRequest>(std::move(parsed)),
                     prepare_completion);
}

Handled openai_models(const Services& s, const Call&) {
  Json list = Json::array();
  for (const StoredModel& m : s.left_out.without(s.store.list())) list.push_back(openai_entry(m));
  return reply_only(json_reply({{"object", "list"}, {"data", list}}));
}

Handled openai_model(const Services& s, const Call& call) {
  return reply_only(json_reply(openai_entry(s.store.find(percent_decoded(call.rest)))));
}

}  // namespace

std::span<const Route> openai_routes() {
  static constexpr Route kRoutes[] = {
      {"GET", "/v1/models", Lane::quick, openai_models},
      {"GET", "/v1/models/", Lane::quick, openai_model},
      {"POST", "/v1/chat/completions", Lane::work, openai_chat},
      {"POST", "/v1/completions", Lane::work, completion},
  };
  return kRoutes;
}

}  // namespace steelyard::api
