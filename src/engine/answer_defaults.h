// What a model's file says about how its answers are best drawn.
#pragma once

#include <string_view>

#include "engine/sampling_options.h"
#include "gguf/gguf.h"

namespace steelyard {

// The defaults of AnswerOptions, with the file's own values (general.sampling.temp, top_k, top_p, min_p,
// penalty_repeat, penalty_last_n) where it has them; one of another type or out of range is passed over.
// The same rule for `run` and for the server: see AnswerWishes::over().
AnswerOptions file_answer_options(const GgufMetadata& metadata);
// Whether a file may say it, for help texts.
bool file_may_say(std::string_view option);

}  // namespace steelyard
