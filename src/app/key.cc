// steelyard key
#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <string>

#include "api/api_keys.h"
#include "app/command_line.h"
#include "app/commands.h"
#include "app/common.h"
#include "app/output.h"
#include "base/error.h"

namespace steelyard {
namespace {

struct Flags {
  std::string file, name, role = "ask";
};

void append_line(const std::string& file, const std::string& line) {
  const int fd = ::open(file.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
  const bool written = fd >= 0 && ::write(fd, line.data(), line.size()) == static_cast<ssize_t>(line.size());
  const int error = errno;
  if (fd >= 0) ::close(fd);
  if (!written) throw_error(ErrorKind::io, "{} can't be written: {}", file, std::strerror(error));
}

int key(const Flags& flags) {
  const api::NewKey made = api::make_key(
      CLI::detail::to_lower(flags.role) == "ask" ? api::KeyRole::ask : api::KeyRole::manage, flags.name);
  append_line(flags.file, made.line);
  note("{} has the key's hash; the key itself is shown only now", flags.file);
  print("{}\n", made.key);
  return 0;
}

}  // namespace

void add_key(CLI::App& app, Action& action) {
  auto* command = add_command(app, "key", "make an API key for `serve --api-keys`",
                              "  steelyard key keys.txt laptop\n"
                              "  steelyard key keys.txt admin --role manage\n"
                              "  steelyard serve --host 0.0.0.0 --api-keys keys.txt");
  auto flags = std::make_shared<Flags>();
  command->add_option("FILE", flags->file, "the file of keys' hashes, to which a line is added")->required();
  command->add_option("NAME", flags->name, "whose key it is")->required();
  takes_one_of(
      command->add_option("--role", flags->role, "ask: use models; manage: pull, make and remove them, too"),
      {"ask", "manage"})
      ->capture_default_str();
  command->callback([&action, flags] { action = [flags] { return key(*flags); }; });
}

}  // namespace steelyard
