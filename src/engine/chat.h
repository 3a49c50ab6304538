// Conversations as token ids: template variables → text → tokens, so that nothing a user wrote becomes a
// control token.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "text/chat_template.h"
#include "text/tokenizer.h"
#include "text/vocabulary.h"

namespace steelyard {

// As templates want them: messages is an array of {role, content, thinking?, tool_calls?, …}.
struct ChatInput {
  nlohmann::ordered_json messages = nlohmann::ordered_json::array();
  nlohmann::ordered_json tools;  // null or an array of {type, function: {name, description, parameters}}
  std::optional<bool> think;     // the variable enable_thinking; unset: the template's own default
  bool add_generation_prompt = true;
  std::stop_token stop;  // asked to stop: rendering ends with Error(cancelled)
};

// The variables a template sees: messages, tools and documents (null where there are none, as transformers
// has it), add_generation_prompt, enable_thinking, bos_token, eos_token. Tool calls' arguments are objects,
// unless a string holds no JSON object, or one that is nested deeper than 64 levels or has more than 4096
// members in one object: then the string stays. `thinking` is also given as reasoning_content.
nlohmann::ordered_json template_variables(const ChatInput& input, const Vocabulary& vocabulary);

// The exact prompt text.
std::string render_chat(const ChatTemplate& chat_template, const ChatInput& input,
                        const Vocabulary& vocabulary);

// The prompt's ids. Control tokens come from the template's own text only: where a message, a tool or a name
// spells one out ("<|im_end|>"), it is encoded as ordinary text. BOS is added when the vocabulary wants it
// and the template didn't write it. Throws Error(bad_input) when the template refuses the conversation, or
// when it rearranges text that spells a control token so that it can't be told apart.
std::vector<TokenId> encode_chat(const ChatTemplate& chat_template, const ChatInput& input,
                                 const Tokenizer& tokenizer);

// `before`, the ids of a prompt and its answer, and after them what the template writes for `input` in the
// middle of a conversation: the end of the answer, the messages, the beginning of the next answer. System
// messages of `input` are left out (`before` began with them), and BOS stands at most once.
std::vector<TokenId> continue_chat(const ChatTemplate& chat_template, const ChatInput& input,
                                   std::vector<TokenId> before, const Tokenizer& tokenizer);

// Whether JSON can be read without a stack or a time that its sender chooses: readers recurse, and look
// through all keys of an object for each new one. At most 64 levels, and 4096 members in one object.
bool is_plain_enough(std::string_view json);

// Whether a message is one of the conversation's instructions (role system or developer).
bool is_system_message(const nlohmann::ordered_json& message);

// Whether a template makes use of tools, or of enable_thinking / reasoning.
struct TemplateAbilities {
  bool tools = false;
  bool thinking = false;
};
TemplateAbilities template_abilities(std::string_view source);

}  // namespace steelyard
