import { CALL, type Checks, checkOptions, flag, string } from "./check.js";
import { newError } from "./convert.js";
import type { CallOptions, Core } from "./core.js";
import type { Topic } from "./gen/claudemesh/v1/topics_pb.js";

const LONGEST_PAGE = 1000;

const LIST: Checks = { ...CALL, subscribedOnly: flag };
const CREATE: Checks = { ...CALL, description: string };

export interface ListTopicsOptions extends CallOptions {
  /** Only topics that this member is subscribed to. */
  subscribedOnly?: boolean | undefined;
}

export interface CreateTopicOptions extends CallOptions {
  /** What it is for. */
  description?: string | undefined;
}

/** The calls on topics. Names are taken with or without the leading `#`. */
export class Topics {
  readonly #core: Core;

  constructor(core: Core) {
    this.#core = core;
  }

  /** Lists the topics that this member may see. */
  async list(options: ListTopicsOptions = {}): Promise<Topic[]> {
    checkOptions(options, LIST);
    const topics: Topic[] = [];
    for (let pageToken = ""; ; ) {
      const request = { subscribedOnly: options.subscribedOnly ?? false, limit: LONGEST_PAGE, pageToken };
      const page = await this.#core.call(options, { feature: "topic" }, (call) =>
        this.#core.raw.topics.listTopics(request, call),
      );
      topics.push(...page.topics);
      pageToken = page.nextPageToken;
      if (pageToken === "") return topics;
    }
  }

  /** Makes an encrypted topic and subscribes to it. It is not repeated: a repeat could not tell its own topic from another's. */
  async create(name: string, options: CreateTopicOptions = {}): Promise<Topic> {
    string("name", name);
    checkOptions(options, CREATE);
    const request = { topic: name, description: options.description ?? "" };
    return present(
      await this.#core.call(options, { feature: "topic", repeat: false }, (call) =>
        this.#core.raw.topics.createTopic(request, call),
      ),
    );
  }

  /** Subscribes this member. */
  async subscribe(name: string, options: CallOptions = {}): Promise<Topic> {
    string("name", name);
    checkOptions(options, CALL);
    return present(
      await this.#core.call(options, { feature: "topic" }, (call) => this.#core.raw.topics.subscribeTopic({ topic: name }, call)),
    );
  }

  /** Ends the subscription; tells whether there was one. */
  async unsubscribe(name: string, options: CallOptions = {}): Promise<boolean> {
    string("name", name);
    checkOptions(options, CALL);
    const answer = await this.#core.call(options, { feature: "topic" }, (call) =>
      this.#core.raw.topics.unsubscribeTopic({ topic: name }, call),
    );
    return answer.wasSubscribed;
  }
}

function present({ topic }: { topic?: Topic | undefined }): Topic {
  if (topic === undefined) throw newError("internal_error", "the daemon's answer holds no topic");
  return topic;
}
