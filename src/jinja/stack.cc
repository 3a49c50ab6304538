#include "jinja/stack.h"

#include <pthread.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace steelyard::jinja {
namespace {

// What recursion may take of the stack, far above what templates need; and what stays free below it for the
// work of one step.
constexpr std::size_t kMaxStack = std::size_t{2} << 20, kReserve = std::size_t{256} << 10;

}  // namespace

const char* stack_end(const char* here) {
  thread_local const std::uintptr_t lowest = [] {
    pthread_attr_t attributes;
    void* address = nullptr;
    std::size_t size = 0;
    if (pthread_getattr_np(pthread_self(), &attributes) != 0) return std::uintptr_t{0};
    pthread_attr_getstack(&attributes, &address, &size);
    pthread_attr_destroy(&attributes);
    return reinterpret_cast<std::uintptr_t>(address);
  }();
  const auto now = reinterpret_cast<std::uintptr_t>(here);
  const std::size_t left = lowest != 0 && now > lowest ? now - lowest : kMaxStack;
  return here - std::min(kMaxStack, left - std::min(left / 2, kReserve));
}

}  // namespace steelyard::jinja
