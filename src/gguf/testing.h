// What the tests of gguf/ share.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <string>

#include "base/error.h"

namespace steelyard::testing {

// The sentence of the error that the action throws; the test fails when there is none or it is of another
// kind.
inline std::string failure(const std::function<void()>& action, ErrorKind kind = ErrorKind::bad_input) {
  try {
    action();
  } catch (const Error& error) {
    EXPECT_EQ(static_cast<int>(error.kind()), static_cast<int>(kind)) << error.what();
    return error.what();
  }
  ADD_FAILURE() << "no error";
  return "";
}

}  // namespace steelyard::testing
