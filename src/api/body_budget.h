// The bytes of request bodies that all connections together may hold. Thread-safe.
#pragma once

#include <atomic>
#include <cstdint>

namespace steelyard::api {

class BodyBudget {
 public:
  explicit BodyBudget(std::uint64_t bytes) : left_(static_cast<std::int64_t>(bytes)) {}

  // One body's part of it, given back at the end.
  class Share {
   public:
    explicit Share(BodyBudget& budget) : budget_(budget) {}
    ~Share() { release(); }
    Share(const Share&) = delete;
    Share& operator=(const Share&) = delete;
    // The body has grown to `bytes`. False: there is no room; small bodies always have some, so that large
    // ones can't shut others out.
    bool grow(std::uint64_t bytes) {
      const std::int64_t wanted = bytes > kFree ? static_cast<std::int64_t>(bytes) : 0;
      const std::int64_t more = wanted - held_;
      if (more <= 0) return true;
      if (budget_.left_.fetch_sub(more) < more) {
        budget_.left_ += more;
        return false;
      }
      held_ = wanted;
      return true;
    }
    void release() {
      budget_.left_ += held_;
      held_ = 0;
    }

   private:
    BodyBudget& budget_;
    std::int64_t held_ = 0;
  };

 private:
  static constexpr std::uint64_t kFree = 16 << 10;
  std::atomic<std::int64_t> left_;
};

}  // namespace steelyard::api
