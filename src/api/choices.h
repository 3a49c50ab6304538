// A request's generations on their way: most requests have one, "n" and lists of prompts make several.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "api/answers.h"
#include "api/mailbox.h"
#include "engine/engine.h"
#include "engine/loaded_model.h"

namespace steelyard::api {

// On a connection's strand.
class Choices {
 public:
  struct News {
    std::uint32_t choice;
    std::string text;
    std::vector<TokenChances> chances;
    bool ended;
  };

  // `alike`: so many requests in a row have one prompt. The first of them goes ahead, so that the others find
  // its prompt read. `at_once`: how many may be in the engine, so that a long list leaves room for others.
  Choices(Strand strand, std::shared_ptr<const LoadedModel> model, std::vector<EngineRequest> requests,
          std::uint32_t alike, std::uint32_t at_once);
  ~Choices() { cancel(); }

  // Submits what may go now; throws as Engine::submit().
  void begin();
  // Waits for news; false when `patience` was over before.
  asio::awaitable<bool> wait(std::chrono::milliseconds patience);
  // What has come since, and submits those that may follow. True: everything has ended, and all was taken.
  bool take(std::vector<News>& news);
  // Those not submitted yet never will be.
  void cancel();

  // Complete once take() said so; their `text` is the caller's.
  std::vector<Choice>& all() { return choices_; }

 private:
  struct Running {
    EngineRequest request;
    Generation generation;
    std::shared_ptr<Mailbox> mailbox;  // null: not submitted
    bool news = false, ended = false;
  };
  void submit(Running& running);
  void submit_more();

  std::shared_ptr<const LoadedModel> model_;
  std::uint32_t alike_, at_once_;
  Signal signal_;
  std::vector<Running> running_;
  std::vector<Choice> choices_;
  std::size_t unsubmitted_ = 0;  // all before it were submitted
  bool cancelled_ = false;
};

}  // namespace steelyard::api
