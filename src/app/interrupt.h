// Ctrl-C while something runs: noted instead of ending the process.
#pragma once

#include <csignal>

namespace steelyard {

// While one lives, SIGINT sets a flag. Scopes nest, on the main thread; each begins without a signal. The
// second SIGINT of a scope that was made with `second_ends` ends the process as usual, so that nothing can
// hang for good.
class InterruptScope {
 public:
  explicit InterruptScope(bool second_ends);
  ~InterruptScope();
  InterruptScope(const InterruptScope&) = delete;
  InterruptScope& operator=(const InterruptScope&) = delete;

  static bool interrupted();
  // Throws Error(cancelled) when it was, for whoever leaves nothing behind.
  static void check();

 private:
  struct sigaction before_ {};
};

}  // namespace steelyard
