// One connection: requests one after the other, everything on its strand but what a handler does.
#pragma once

#include <boost/asio.hpp>
#include <memory>
#include <stop_token>
#include <string>

#include "api/choices.h"
#include "api/core.h"
#include "api/wire.h"
#include "engine/model_manager.h"
#include "store/jobs.h"

namespace steelyard::api {

class Session : public std::enable_shared_from_this<Session> {
 public:
  // The core must outlive it. Counts itself among the core's connections.
  Session(ServerCore& core, tcp::socket socket, Strand strand);
  ~Session();
  asio::awaitable<void> run();
  // From any thread.
  void close_if_idle();
  void cancel();

 private:
  struct Exchange;  // a request on its way to its answer

  asio::awaitable<bool> one_request();
  asio::awaitable<void> refuse(ReadResult result);
  asio::awaitable<void> answer(Exchange& x, HttpRequest request, BodyBudget::Share& share);
  asio::awaitable<void> work(Exchange& x, HttpRequest request, BodyBudget::Share& share);
  asio::awaitable<void> upload(Exchange& x);
  asio::awaitable<void> get_model(Exchange& x, Handled& handled);
  asio::awaitable<void> generate(Exchange& x, Handled& handled);
  asio::awaitable<void> follow(Exchange& x, std::shared_ptr<StoreJob::Follower> follower, bool stream);
  asio::awaitable<void> whole_answer(Exchange& x, AnswerFormat& format, Choices& choices);
  asio::awaitable<void> stream_answer(Exchange& x, AnswerFormat& format, Choices& choices);
  std::string frames_of(AnswerFormat& format, Choices& choices, Exchange& x, bool& done);
  asio::awaitable<void> begin_stream(Exchange& x, std::string_view content_type);
  asio::awaitable<void> write(Exchange& x, const Reply& reply);
  std::string preflight(const WireRequest& request) const;
  std::string head(const Exchange& x, unsigned status, std::string_view content_type,
                   const std::string& more) const;
  void log(const Exchange& x) const;
  void peer_gone();

  ServerCore& core_;
  Strand strand_;
  std::shared_ptr<Wire> wire_;
  std::shared_ptr<Choices> choices_;  // of the request that is answered now, to be cancelled
  ModelManager::Ticket ticket_;       // likewise
  std::stop_source stop_;             // likewise, while its prompt is made
  bool gone_ = false;                 // the peer is
};

}  // namespace steelyard::api
