// Anthropic's paths.
#include <memory>
#include <utility>
#include <vector>

#include "api/handler_parts.h"
#include "api/routes.h"
#include "api/stored_defaults.h"
#include "engine/model_manager.h"
#include "text/vocabulary.h"

namespace steelyard::api {
namespace {

Handled prepare_messages(const MessagesRequest& r, const ModelManager::Lease& lease) {
  AnswerFacts facts = facts_of(r, lease);
  std::vector<TokenId> prompt = chat_prompt(r, *lease.model, facts);
  facts.prompt_tokens = prompt.size();
  return generation(messages_format(std::move(facts)), r, lease, std::move(prompt));
}

Handled prepare_count(const MessagesRequest& r, const ModelManager::Lease& lease) {
  AnswerFacts facts = facts_of(r, lease);
  return reply_only(json_reply({{"input_tokens", chat_prompt(r, *lease.model, facts).size()}}));
}

template <bool counting>
Handled messages(const Services& s, const Call& call) {
  MessagesRequest parsed = parse_messages(call.body, counting);
  parsed.input.stop = call.stop;
  add_defaults(s, parsed);
  return when_loaded(Dialect::anthropic, std::make_shared<const MessagesRequest>(std::move(parsed)),
                     counting ? prepare_count : prepare_messages);
}

}  // namespace

std::span<const Route> anthropic_routes() {
  static constexpr Route kRoutes[] = {
      {"POST", "/v1/messages", Lane::work, messages<false>},
      {"POST", "/v1/messages/count_tokens", Lane::work, messages<true>},
  };
  return kRoutes;
}

}  // namespace steelyard::api
