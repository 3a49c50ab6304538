// Long work on the store, shown step by step.
#pragma once

#include <functional>
#include <stop_token>

#include "store/pull.h"

namespace steelyard {

// Runs it with its steps on stderr; Ctrl-C asks it to stop, and it then throws Error(cancelled).
int follow_steps(const std::function<void(const OnStep& on_step, const std::stop_token& stop)>& work);

}  // namespace steelyard
