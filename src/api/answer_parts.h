// What the dialects' answers have in common.
#pragma once

#include "api/answers.h"
#include "api/fields.h"
#include "engine/engine.h"

namespace steelyard::api {

// "stop" or "length": Ollama's and OpenAI's word for how an answer ended.
const char* reason_word(DoneReason reason);

// The object "steelyard" of an answer.
Json figures(const Answer& answer, const AnswerFacts& facts);

}  // namespace steelyard::api
