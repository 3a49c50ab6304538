// A conversation that outgrew its context goes on without its oldest turns.
#pragma once

#include <cstddef>
#include <vector>

#include "engine/chat.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"
#include "text/vocabulary.h"

namespace steelyard {

struct FittedChat {
  std::vector<TokenId> prompt;
  std::size_t dropped_turns = 0;     // the oldest; 0: the conversation is whole
  std::size_t dropped_messages = 0;  // that they had
};

// Tokens to keep free for an answer that may have `num_predict` tokens (negative: any number): so many, at
// most a quarter of the context.
std::size_t answer_reserve(std::int64_t num_predict, std::size_t context);

// encode_chat() of the conversation without the fewest of its oldest turns, so that the prompt and `reserve`
// tokens for the answer fit into a context of `context` tokens. A turn is a user's message and all up to the
// next one, answers, tool calls and their results; what stands before the first one is a turn too. System
// messages and the last turn are never dropped; when these alone leave less than `reserve`, the answer gets
// what is left. Throws Error(bad_input) when they leave nothing, and as encode_chat().
FittedChat fit_chat(const ChatTemplate& chat_template, const ChatInput& input, const Tokenizer& tokenizer,
                    std::size_t context, std::size_t reserve);

}  // namespace steelyard
