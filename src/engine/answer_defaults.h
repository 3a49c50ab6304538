// What a model's file says about how its answers are best drawn.
#pragma once

#include "engine/sampling_options.h"
#include "gguf/gguf.h"

namespace steelyard {

// The defaults of AnswerOptions, with the file's own values (general.sampling.temp, top_k, top_p, min_p,
// penalty_repeat, penalty_last_n) where it has them; one of another type or out of range is passed over.
AnswerOptions file_answer_options(const GgufMetadata& metadata);

}  // namespace steelyard
