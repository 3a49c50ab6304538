#include "device/cuda/host/part_links.h"

#include "base/error.h"
#include "program/uses.h"

namespace steelyard::cuda {

PartLinks::PartLinks(Gpu& gpu, const Program& program, const Bindings& bindings, const Memory& memory)
    : gpu_(gpu),
      program_(program),
      boxes_(bindings.links),
      memory_(memory),
      tokens_(bindings.tokens),
      sampled_(tokens_.sampled ? on_device(tokens_.sampled) : 0),
      samples_(tokens_.sampled && samples(program)),
      needs_samples_(tokens_.sampled && !samples_ && reads_tokens(program)),
      from_(find_end(program, bindings, false)),
      to_(find_end(program, bindings, true)) {}

std::optional<PartLinks::End> PartLinks::find_end(const Program& program, const Bindings& bindings,
                                                  bool sends) const {
  const LinkBox* box = box_of(program, bindings.links, sends);
  if (!box) return std::nullopt;
  const BufferId rows = link_end(program, sends)->rows;
  return End{*box, on_device(box->sent), memory_.buffers[rows], program.buffers[rows].width * sizeof(float)};
}

// Page-locked memory has its own address here.
CuPtr PartLinks::on_device(const void* host) const {
  CuPtr address = 0;
  gpu_.check(gpu_.driver().host_pointer(&address, const_cast<void*>(host), 0), "finding a link");
  return address;
}

std::vector<ExchangeArg> PartLinks::exchanges(const std::uint32_t* abort) const {
  std::vector<ExchangeArg> all(boxes_.size());
  for (const Op& op : program_.ops)
    if (const LinkId link = exchange_of(op); link != kNoLink) all.at(link) = exchange(boxes_[link], abort);
  return all;
}

// All ranks read and write one box.
ExchangeArg PartLinks::exchange(const LinkBox& box, const std::uint32_t* abort) const {
  if (box.writers > kMostRanks)
    throw_error(ErrorKind::unsupported, "a layer lies on {} devices, {} are the most", box.writers,
                kMostRanks);
  ExchangeArg e{};
  e.mine = {pointer<float>(on_device(box.rows)), pointer<std::uint64_t>(on_device(box.sent))};
  e.to[0] = e.mine;
  e.readers = 1;
  e.abort = abort;
  e.turn_floats = box.turn_floats, e.writer_floats = box.writer_floats;
  e.writers = box.writers, e.rank = program_.rank;
  e.turns = box.turns, e.most_rows = box.most_rows, e.chunks = box.chunks, e.uses = box.uses;
  if (box.words) e.words = pointer<std::uint64_t>(on_device(box.words));
  return e;
}

void PartLinks::wait_for(CuPtr count, std::uint64_t steps, CuStream queue) {
  constexpr unsigned kAtLeast = 0;
  gpu_.check(gpu_.driver().stream_wait_value(queue, count, steps, kAtLeast),
             "waiting for another part of the model");
}

// What was enqueued before is seen by everybody who sees the count.
void PartLinks::write(CuPtr count, std::uint64_t steps, CuStream queue) {
  constexpr unsigned kAfterABarrier = 0;
  gpu_.check(gpu_.driver().stream_write_value(queue, count, steps, kAfterABarrier),
             "telling another part of the model");
}

void PartLinks::wait(std::uint64_t number, std::uint64_t samples_needed, CuStream queue) {
  if (needs_samples_ && samples_needed > 0) wait_for(sampled_, samples_needed, queue);
  if (from_) wait_for(from_->sent, number + 1, queue);
}

void PartLinks::take(std::uint64_t number, std::uint64_t samples_needed, std::uint32_t rows, CuStream queue) {
  const Driver& d = gpu_.driver();
  // Of all slots: those that the step has no row for are copied again before they are used.
  if (needs_samples_ && samples_needed > 0)
    gpu_.check(
        d.copy_to_device(memory_.last_sample, tokens_.last, memory_.slots * sizeof(std::int32_t), queue),
        "taking the last samples");
  if (from_)
    gpu_.check(d.copy_to_device(from_->rows, from_->box.of_step(number), rows * from_->row_bytes, queue),
               "taking rows from another part");
}

void PartLinks::send(std::uint64_t number, std::uint32_t rows, CuStream queue) {
  if (!to_) return;
  gpu_.check(gpu_.driver().copy_to_host(to_->box.of_step(number), to_->rows, rows * to_->row_bytes, queue),
             "giving rows to another part");
  write(to_->sent, number + 1, queue);
}

void PartLinks::send_samples(std::uint64_t number, CuStream queue) {
  if (!samples_) return;
  gpu_.check(gpu_.driver().copy_to_host(tokens_.last, memory_.last_sample,
                                        memory_.slots * sizeof(std::int32_t), queue),
             "telling the last samples");
  write(sampled_, number + 1, queue);
}

}  // namespace steelyard::cuda
