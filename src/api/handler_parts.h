// What the dialects' handlers have in common: replies, the stage that needs the model, prompts.
#pragma once

#include <exception>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "api/answers.h"
#include "api/fields.h"
#include "api/handlers.h"
#include "api/requests.h"
#include "engine/answer_parser.h"
#include "engine/chat.h"
#include "engine/loaded_model.h"
#include "engine/model_manager.h"
#include "text/vocabulary.h"

namespace steelyard::api {

Reply json_reply(const Json& json);
Handled reply_only(Reply reply);

// For the log: the options that were ignored.
std::string ignored_note(const Options& options);

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

AnswerFacts facts_of(const CommonRequest& request, const ModelManager::Lease& lease);

// Throws Error(bad_input) when the model's template doesn't know tools or thinking that the request wants.
void check_abilities(const LoadedModel& model, const ChatInput& input);

// The conversation's prompt, without its oldest turns where it doesn't fit and the request says so; `facts`
// then says how many messages they had, and how the answer is to be read.
std::vector<TokenId> chat_prompt(const ChatRequest& request, const LoadedModel& model, AnswerFacts& facts);

// How the model's template marks what isn't text, after this prompt; `input` may be a prompt's alone.
AnswerSyntax syntax_of(const LoadedModel& model, const ChatInput& input, const std::vector<TokenId>& prompt);

// The last stage: every prompt is to be answered, as often as the request wants choices, in `format`.
Handled generation(std::unique_ptr<AnswerFormat> format, const CommonRequest& request,
                   const ModelManager::Lease& lease, std::vector<std::vector<TokenId>> prompts);
Handled generation(std::unique_ptr<AnswerFormat> format, const CommonRequest& request,
                   const ModelManager::Lease& lease, std::vector<TokenId> prompt);

// "my%20model" → "my model"; what is no escape stays as it is.
std::string percent_decoded(std::string_view text);

}  // namespace steelyard::api
