#include "api/handlers.h"

#include <algorithm>
#include <exception>
#include <new>

#include "api/handler_parts.h"
#include "api/routes.h"
#include "base/error.h"
#include "base/readable.h"
#include "engine/errors.h"

namespace steelyard::api {
namespace {

// A path without its query and without a slash at the end.
std::string_view path_of(std::string_view target) {
  std::string_view path = target.substr(0, target.find('?'));
  while (path.size() > 1 && path.ends_with('/')) path.remove_suffix(1);
  return path;
}

Reply no_such_path(std::string_view path) {
  const std::string shown = readable(path, 100);
  return error_reply(dialect_of(path), 404u, fmt::format("there is no {} here", shown));
}

std::string_view query_of(std::string_view target) {
  const std::size_t at = target.find('?');
  return at == target.npos ? std::string_view() : target.substr(at + 1);
}

bool answers(const Route& r, std::string_view path) {
  const bool beginning = r.path.size() > 1 && r.path.ends_with('/');
  return beginning ? path.starts_with(r.path) : path == r.path;
}

// Calls `fn` with every route of the path.
template <typename Fn>
void for_routes(std::string_view path, Fn fn) {
  for (const auto& routes : {ollama_routes(), show_routes(), models_routes(), openai_routes(),
                             responses_routes(), embed_routes(), anthropic_routes(), llama_server_routes()})
    for (const Route& r : routes)
      if (answers(r, path)) fn(r);
}

// The path's route for the method; null: there is none.
const Route* find_route(std::string_view method, std::string_view path) {
  const Route *exact = nullptr, *head = nullptr;
  for_routes(path, [&](const Route& r) {
    if (!exact && r.method == method) exact = &r;
    if (!head && method == "HEAD" && r.method == "GET") head = &r;
  });
  return exact ? exact : head;
}

// "GET, HEAD, POST": what the path takes; empty: there is no such path.
std::string methods_of(std::string_view path) {
  std::string list;
  const auto add = [&list](std::string_view method) {
    if (list.find(method) == list.npos) list += (list.empty() ? "" : ", ") + std::string(method);
  };
  for_routes(path, [&](const Route& r) {
    add(r.method);
    if (r.method == "GET") add("HEAD");
  });
  return list;
}

Reply no_route(std::string_view path) {
  std::string methods = methods_of(path);
  if (methods.empty()) return no_such_path(path);
  Reply reply = error_reply(dialect_of(path), 405u, fmt::format("{} takes {} only", path, methods));
  reply.allow = std::move(methods);
  return reply;
}

}  // namespace

Dialect dialect_of(std::string_view target) {
  if (target.starts_with("/v1/messages")) return Dialect::anthropic;
  const std::string_view path = path_of(target);
  const bool llama_server =
      std::ranges::any_of(llama_server_routes(), [&](const Route& r) { return r.path == path; });
  return target.starts_with("/v1/") || llama_server ? Dialect::openai : Dialect::native;
}

Reply reply_for(Dialect dialect, const std::exception_ptr& error) {
  try {
    std::rethrow_exception(error);
  } catch (const TooLong& e) {
    return too_long_reply(dialect, e.what());
  } catch (const Error& e) {
    return error_reply(dialect, e.kind(), e.what());
  } catch (const std::bad_alloc&) {
    return error_reply(dialect, ErrorKind::busy,
                       "there isn't enough memory for this request now: try again later");
  } catch (const std::exception& e) {
    return error_reply(dialect, ErrorKind::internal, e.what());
  }
}

std::string_view Handlers::route_path(std::string_view method, std::string_view target) const {
  const Route* route = find_route(method, path_of(target));
  return route ? route->path : std::string_view("other");
}

Lane Handlers::lane(std::string_view method, std::string_view target) const {
  const Route* route = find_route(method, path_of(target));
  return route ? route->lane : Lane::at_once;
}

Need Handlers::need(std::string_view method, std::string_view target) const {
  const Route* route = find_route(method, path_of(target));
  return route ? route->need : Need::ask;
}

Handled Handlers::handle(const HttpRequest& request) const {
  const std::string_view path = path_of(request.target);
  const Route* route = find_route(request.method, path);
  if (!route) return reply_only(no_route(path));
  const Services services{models_, store_, version_, left_out_, metrics_, jobs_};
  try {
    return route->handler(services, {request.body, path.substr(std::min(path.size(), route->path.size())),
                                     query_of(request.target), request.stop});
  } catch (...) {
    return reply_only(reply_for(dialect_of(path), std::current_exception()));
  }
}

}  // namespace steelyard::api
