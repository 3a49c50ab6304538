// How far down a thread's stack recursion may go. Internal to jinja/.
#pragma once

namespace steelyard::jinja {

// The lowest address to which recursion of the calling thread may go from `here`, an address on its stack.
const char* stack_end(const char* here);

}  // namespace steelyard::jinja
