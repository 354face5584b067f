"""The Privyseal daemon: keyholder, signing, log, releases and the gateway for devices."""
