#include "engine/fit_chat.h"

#include <algorithm>

#include "engine/errors.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace steelyard {
namespace {

using Json = nlohmann::ordered_json;

bool is_user_message(const Json& message) {
  if (!message.is_object()) return false;
  const auto role = message.find("role");
  return role != message.end() && *role == "user";
}

// Where turns begin, oldest first.
std::vector<std::size_t> turns_of(const Json& messages) {
  std::vector<std::size_t> begins;
  for (std::size_t i = 0; i < messages.size(); ++i)
    if (is_user_message(messages[i]) || (begins.empty() && !is_system_message(messages[i])))
      begins.push_back(i);
  return begins;
}

// The conversation from message `begin` on, and the system messages before it.
ChatInput without_older(const ChatInput& input, std::size_t begin) {
  ChatInput rest = input;
  rest.messages = Json::array();
  for (std::size_t i = 0; i < input.messages.size(); ++i)
    if (i >= begin || is_system_message(input.messages[i])) rest.messages.push_back(input.messages[i]);
  return rest;
}

}  // namespace

std::size_t answer_reserve(std::int64_t num_predict, std::size_t context) {
  return num_predict < 0 ? context / 4 : std::min(static_cast<std::size_t>(num_predict), context / 4);
}

FittedChat fit_chat(const ChatTemplate& chat_template, const ChatInput& input, const Tokenizer& tokenizer,
                    std::size_t context, std::size_t reserve) {
  FittedChat best{.prompt = encode_chat(chat_template, input, tokenizer)};
  const auto fits = [&](const FittedChat& c) { return c.prompt.size() + reserve <= context; };
  const std::vector<std::size_t> turns = turns_of(input.messages);
  const auto dropping = [&](std::size_t n) {
    const ChatInput rest = without_older(input, turns[n]);
    return FittedChat{.prompt = encode_chat(chat_template, rest, tokenizer),
                      .dropped_turns = n,
                      .dropped_messages = input.messages.size() - rest.messages.size()};
  };
  if (!fits(best) && turns.size() > 1) {
    // Too few and enough, as far as is known; prompts get shorter with every turn that goes.
    std::size_t few = 0, enough = turns.size() - 1;
    best = dropping(enough);
    while (fits(best) && enough - few > 1) {
      const std::size_t middle = few + (enough - few) / 2;
      FittedChat candidate = dropping(middle);
      if (fits(candidate)) {
        enough = middle;
        best = std::move(candidate);
      } else {
        few = middle;
      }
    }
  }
  if (best.prompt.size() >= context)
    throw TooLong(fmt::format(
        "the last message{} has {} tokens, but the context holds {} with the answer: shorten it or use a "
        "larger context",
        input.messages.size() > 1 ? " with the system message" : "", best.prompt.size(), context));
  return best;
}

}  // namespace steelyard
