// OpenAI's responses.
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

Handled prepare_responses(const ResponsesRequest& r, const ModelManager::Lease& lease) {
  AnswerFacts facts = facts_of(r, lease);
  std::vector<TokenId> prompt = chat_prompt(r, *lease.model, facts);
  return generation(responses_format(std::move(facts), r.echo), r, lease, std::move(prompt));
}

Handled responses(const Services& s, const Call& call) {
  ResponsesRequest parsed = parse_responses(call.body);
  parsed.input.stop = call.stop;
  add_defaults(s, parsed);
  return when_loaded(Dialect::openai, std::make_shared<const ResponsesRequest>(std::move(parsed)),
                     prepare_responses);
}

}  // namespace

std::span<const Route> responses_routes() {
  static constexpr Route kRoutes[] = {{"POST", "/v1/responses", Lane::work, responses}};
  return kRoutes;
}

}  // namespace steelyard::api
