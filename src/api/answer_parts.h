// What the dialects' answers have in common.
#pragma once

#include "api/answers.h"
#include "api/fields.h"
#include "engine/engine.h"
#include "text/tokenizer.h"

namespace steelyard::api {

// "stop" or "length": Ollama's and OpenAI's word for how an answer ended.
const char* reason_word(DoneReason reason);

// [{token, logprob, bytes, top_logprobs: [{token, logprob, bytes}]}], as Ollama and OpenAI's chat have it.
Json chances_json(std::span<const TokenChances> chances, const Tokenizer& tokenizer);

// "msg_69…000001": no two of a server are the same.
std::string fresh_id(std::string_view prefix);

// One event of a stream whose events have names.
std::string named_event(std::string_view name, const Json& data);

// The object "steelyard" of an answer.
Json figures(const Answer& answer, const AnswerFacts& facts);

}  // namespace steelyard::api
